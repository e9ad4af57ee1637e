"""Workers on this machine or on a cluster, and work shared out to them."""
