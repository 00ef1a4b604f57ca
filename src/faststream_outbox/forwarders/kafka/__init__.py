"""To a Kafka topic that a publisher of FastStream's ``KafkaBroker`` names.

The forwarder takes address, security, topic, partition, key, headers, partitioner, compression and sizes from the
publisher and its broker, and speaks to Kafka on connections of its own. A lane's ``KafkaClient`` borrows them for a
hand-over, and no other lane has them meanwhile (``lender.py``). The forwarder builds its record batches itself and
tries each just once, because aiokafka's producer

- goes on with the next batch of a partition after one has failed, and so passes rows by an earlier row of their key;
- retries in the background, so that a send which was given up can arrive after its row was sent again; with
  ``enable_idempotence`` it never gives up at all, and closing it waits for that.

So ``enable_idempotence``, ``transactional_id``, ``linger_ms`` and the serializers of the broker do not touch what a
forwarder sends: repeats carry the same idempotency key, and the payload goes through byte for byte.

A row with an address of its own goes to the topic of that name, as it is, without a router's prefix. The publisher's
``partition`` is one of its own topic; elsewhere the key decides. A topic that a row has named and that does not exist,
or that is not permitted, refuses the row; the same of the publisher's own topic is an outage.
"""
