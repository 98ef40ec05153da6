"""Decides what the script on a host does next, and whether it went well.

Ansible's process imports these modules, so they use the standard library only.
"""
