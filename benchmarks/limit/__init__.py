"""Bare loops of asyncpg and a destination's own client: nothing that carries rows safely can be much faster."""
