"""Forwarders to Redis, on a real server."""
