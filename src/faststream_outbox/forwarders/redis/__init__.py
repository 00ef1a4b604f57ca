"""To a Redis stream, list or channel that a publisher of FastStream's ``RedisBroker`` or ``RedisSentinelBroker`` names.

The forwarder takes address, security, prefix, ``maxlen``, headers, ``reply_to`` and message format from the publisher
and its broker, and speaks to Redis on connections of its own, one ``RedisClient`` for each lane. The client retries
nothing by itself, so the broker's ``retry``, ``retry_on_error`` and ``retry_on_timeout`` do not touch what a forwarder
sends, nor do its middlewares: repeats carry the same idempotency key, and the payload goes through byte for byte.

With ``security=``, sentinels are asked over encrypted connections too, by the same context, unless ``sentinel_kwargs``
says something of ``ssl`` itself: ``sentinel_kwargs={"ssl": False}`` for sentinels that speak plain text.

Rows go in transactions (``MULTI`` … ``EXEC``). In a plain pipeline each command stands alone: when memory becomes free
between two of them, the second is taken and the first is not, and the order of a key is broken.

With ``envelope="plain"`` an entry of a stream has the payload in the field ``body`` and each header in a field of its
own, which any client reads. FastStream's subscribers read only their own envelope.

A row with an address of its own goes to the stream, list or channel of that name, as it is, without a router's prefix.
A key that holds something else, or that is not permitted, refuses the rows that have named it; of the publisher's own
it is an outage.

Redis answers when it has a message in memory. Its configuration decides whether it keeps the message: persistence
(``appendonly``), ``maxmemory-policy`` (``allkeys-…`` may evict a whole stream that no consumer has read: the
forwarder warns of it once, if the server tells its policy), ``maxlen``, and replication: a primary that has been
replaced takes messages until it notices, and then forgets them, unless ``min-replicas-to-write`` prevents it.
"""
