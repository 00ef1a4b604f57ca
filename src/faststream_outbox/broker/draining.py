"""How tests of applications, and people, have a broker come to an end of its work."""

from typing import Any

from faststream_outbox._values.limits import check_queue
from faststream_outbox.admin.drained import wait_until_drained
from faststream_outbox.checks import MIN_SECONDS, require_flag, require_seconds


class OutboxDrainMixin:
    """The waiting half of ``OutboxBroker``: until no row is left, and without the delays of retries."""

    # The broker's.
    config: Any

    async def wait_until_drained(
        self,
        queue: str | None = None,
        *,
        timeout: float = 30.0,  # noqa: ASYNC109 - it names what is left
        retry_now: bool = False,
    ) -> None:
        """Wait until a queue has no row left that is ready, due, with a handler, or to be tried again.

        It is for tests of applications on a real database, and for a stop after all work is done. When it returns, the
        outcome of each message is in the table: it was delivered, or is a dead letter. Timers whose time has not come
        are not waited for, nor are dead letters. Copies for forwarders with ``tee=True`` belong to their queue.

        Args:
            queue: Its name; None waits for all queues of the table.
            timeout: Seconds to wait.
            retry_now: Whether each retry comes at once, whatever the retry strategy's delay is: all attempts of a
                message take milliseconds, and are counted as ever. See the method ``retry_now``.

        Raises:
            ConfigError: ``timeout`` or ``retry_now`` cannot be.
            TimeoutError: Names the queues that have rows, and in which state these are.

        Example::

            await client.post("/orders", json=order)
            await broker.wait_until_drained("orders", timeout=10, retry_now=True)
        """
        require_seconds("timeout", timeout, at_least=MIN_SECONDS)
        require_flag("retry_now", retry_now)
        onlooker = self.config.broker_config.storage.onlooker
        meanwhile = (lambda: self.retry_now(queue)) if retry_now else None
        await wait_until_drained(onlooker, queue, seconds=timeout, meanwhile=meanwhile)

    async def retry_now(self, queue: str | None = None) -> int:
        """End the waiting of messages that failed, or were deferred, and wait for their next attempt.

        Attempts stay counted, and the order of each key stays. Timers are left alone: they have not been tried. Rows
        that a consumer has are passed over. It is for tests, and for people who have mended what made messages fail.

        Args:
            queue: Its name, with the copies for forwarders with ``tee=True``; None: all queues of the table.

        Returns:
            How many there were.

        Raises:
            InvalidMessageError: No queue could have that name.

        Example::

            assert await broker.retry_now("orders") == 1
        """
        if queue is not None:
            check_queue(queue)
        config = self.config.broker_config
        woken = await config.storage.store.retry_now(queue)
        if (runtime := config.current_runtime) is not None:
            for name in woken:
                runtime.wake(name)
        return sum(woken.values())
