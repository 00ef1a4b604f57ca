-- Dead letters by queue, reason and kind of exception, the largest groups first. Up to :at_most letters are looked at.
SELECT queue, failure_reason, kind, count(*) AS letters, count(*) FILTER (WHERE holds_key) AS held,
    min(failed_at) AS first_failed_at, max(failed_at) AS last_failed_at, min(last_exception) AS example,
    CAST(sum(count(*)) OVER () AS bigint) AS looked_at
FROM (
    SELECT queue, failure_reason, {failed_at}, left(last_exception, 500) AS last_exception,
        next_attempt_at IS NOT NULL AS holds_key, split_part(split_part(last_exception, chr(10), 1), ':', 1) AS kind
    FROM {dead_letters} AS d
    WHERE {selected}
    LIMIT CAST(:at_most AS bigint)
) AS letter
GROUP BY queue, failure_reason, kind
ORDER BY letters DESC, queue, failure_reason, kind
LIMIT CAST(:limit AS integer)
