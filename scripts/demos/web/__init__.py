"""The web server and the client of the demo of services; both are programs of their own."""
