"""The web server and the client of the demo of services, which are separate programs."""
