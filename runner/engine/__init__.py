"""Which worker plays which run, and when."""
