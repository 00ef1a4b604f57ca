-- The first shards that have work and no other taker. The locks go with the transaction. They need a statement of their
-- own: only the next statement's snapshot is sure to see what the previous taker of a shard has written.
-- CASE keeps a lock from being tried before the look, and no ORDER BY keeps LIMIT lazy: no lock is taken in vain.
-- PostgreSQL ends a transaction whose client says nothing for too long, and with it frees the shard and its rows: else
-- they would stay locked for hours when a machine loses its power. That is limit enough: the role's own one for whole
-- transactions (17 and newer) would end a hand-over whose destination is slow. Nor may a lock on the table hold up many
-- shards: after a moment they are given back. All settings go with the transaction.
-- Which run of which server this is tells those who remember what it has committed whether it may have lost that since.
SELECT wanted.queue, wanted.shard, current_setting('lock_timeout'),
    pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time(),
    set_config('idle_in_transaction_session_timeout', CAST(:idle AS text), true),
    CASE
        WHEN current_setting('transaction_timeout', true) IS NOT NULL
        THEN set_config('transaction_timeout', '0', true)
    END,
    set_config('lock_timeout', COALESCE(CAST(:patience AS text), current_setting('lock_timeout')), true)
FROM unnest(CAST(:queues AS text[]), CAST(:shards AS smallint[]), CAST(:floors AS bigint[])) AS wanted(queue, shard, floor)
WHERE {planned_anew} AND CASE
    WHEN {has_work}
    THEN CASE
        -- Processes of earlier versions know a shard by the table's name alone, and some may still run beside this one
        -- while it is deployed. The next release drops this lock.
        WHEN pg_try_advisory_xact_lock(hashtextextended(:name_scope || wanted.queue, wanted.shard))
        -- A table has two names, with its schema and without, and processes that call it differently are to meet.
        THEN pg_try_advisory_xact_lock(
            hashtextextended('outbox ' || (SELECT {oid}) || '/' || wanted.queue, wanted.shard)
        )
        ELSE false
    END
    ELSE false
END
LIMIT CAST(:breadth AS integer)
