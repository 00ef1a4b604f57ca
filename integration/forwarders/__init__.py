"""Forwarders between a real PostgreSQL and real destinations.

The tests here run on every kind of destination; a folder has what one kind alone has.
"""
