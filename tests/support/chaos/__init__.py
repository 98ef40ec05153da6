"""Nodes, hosts and a database in trouble of every kind, and whether all that the nodes promise holds afterwards."""
