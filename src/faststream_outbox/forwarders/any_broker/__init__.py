"""To whatever a FastStream publisher of another broker names: NATS, Confluent Kafka, MQTT, and brokers unknown to us.

Rows go through the publisher's public ``publish``, with its broker's middlewares and codec, which get the payload as
bytes. For each row the call is awaited; the next row of its key follows when it has returned, other keys meanwhile.

The forwarder connects the publisher's broker and starts none of its subscribers. If the application has connected that
broker, its connection is used and left alone; start it before the outbox's broker, or not at all. What the forwarder
has opened it closes, and cuts when a hand-over is given up: what waits in the client then is not sent any more. On the
application's own connection that cannot be had, and a send that was given up may still arrive, with the same key.

What is known of a kind stands in its module: which settings are refused, and what its errors mean. A broker that has no
module here is taken at its word: when ``publish`` returns, it has the message.
"""
