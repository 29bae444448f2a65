"""Docker's network driver and address management, for containers attached to the overlay without a bridge.

dockerd finds a driver by its socket in /run/docker/plugins; ours is named after the agent's interface, so that two
agents on one host are two drivers, and neither is called ``overlay``, which is swarm's.  A network is this host's: it
takes addresses from the host's own subnet, and reaches those of other hosts because all of them are in the overlay.

    docker network create -d overlay0 --ipam-driver overlay0 --subnet 10.244.1.0/24 web

Docker's requests are described in libnetwork's docs/remote.md and docs/ipam.md; those of Docker 20.10 were recorded.
"""
