"""The forwarder as seen by the agent: started, told what it must know, asked, policed and replaced."""
