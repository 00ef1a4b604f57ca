"""A forwarder that sends exactly once, where nothing goes wrong."""

from .shop import Shop


async def test_each_message_is_there_once(shop: Shop) -> None:
    await shop.publish(2000)
    broker, forwarder = shop.relay()
    await broker.start()
    await shop.until_empty()
    await shop.check()
    status = await forwarder.status()
    assert (status.sent, status.maybe_repeated) == (2000, 0)


async def test_the_next_process_goes_on_where_the_last_one_stood(shop: Shop) -> None:
    for _ in range(3):
        await shop.publish(300)
        broker, forwarder = shop.relay()
        await broker.start()
        await shop.until_empty()
        status = await forwarder.status()
        assert (status.sent, status.maybe_repeated) == (300, 0)
        await broker.stop()
    await shop.check()
    producers = await shop.value("SELECT count(DISTINCT producer_id) FROM outbox_position WHERE topic = ''")
    assert producers == await shop.value("SELECT count(*) FROM outbox_position WHERE topic = ''")
