"""Where rows are kept: the only SQL of the package, and the same protocol in memory."""
