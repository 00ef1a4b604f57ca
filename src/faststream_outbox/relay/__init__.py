"""A relay without code: what the command ``relay`` reads, checks and runs. It needs the extra ``relay``."""
