"""The loops that move rows. They know neither SQL nor FastStream: a store is below them, callables are above."""
