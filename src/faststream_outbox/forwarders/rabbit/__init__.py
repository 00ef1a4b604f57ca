"""To a RabbitMQ exchange that a publisher of FastStream's ``RabbitBroker`` names.

The forwarder takes address, security, exchange, routing key, headers and properties from the publisher and its broker,
and speaks to RabbitMQ on connections of its own, one ``RabbitClient`` for each lane, below aio-pika's reconnecting one:

- its channel has publisher confirms, and a message that no queue takes is an error, whatever ``default_channel`` says;
- what was given up is cut off: the connection is reset, which discards what is on its way and what RabbitMQ holds back
  during a memory alarm. After an orderly end it would read that hours later. Only what has reached a server that is
  frozen as a whole can still arrive: as a repeat, and in order, since the next row of a key follows a confirmed one.

Before it publishes, a forwarder declares the publisher's exchange, as the publisher itself would, and nothing else.
Every message is persistent, also without ``persist=True``: to a queue that is not durable it makes no difference.
A row with an address of its own goes to the same exchange with that routing key, as it is, without a router's prefix;
on the default exchange it names a queue. One that is not permitted (topic authorisation) refuses the row.
Middlewares and codecs do not touch what a forwarder sends; the publisher's ``timeout`` is how long a hand-over waits.
"""
