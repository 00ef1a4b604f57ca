"""How rows are leased to handlers, one claim at a time. It knows nothing of forwarders."""
