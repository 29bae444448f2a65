"""What the forwarder does for virtual services: it chooses a server for each packet, and answers
where there is none.
"""
