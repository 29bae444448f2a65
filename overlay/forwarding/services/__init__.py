"""The forwarder's part of virtual services: it chooses a server for each packet, and answers if there is none."""
