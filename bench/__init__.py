"""How fast paraschut is, beside its floor and its peers: ``python -m bench``."""
