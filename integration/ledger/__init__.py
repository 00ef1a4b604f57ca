"""The ledger: whether every committed message arrived, unchanged and in order, judged from outside by plain clients."""
