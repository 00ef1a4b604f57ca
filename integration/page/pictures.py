"""Makes the pictures of docs/page.md: ``python -m integration.page.pictures docs/pictures``.

A PostgreSQL with an outbox of a bad night is started, and a browser looks at it: light, dark, and as wide as a phone.
"""

import shutil
import sys
import threading
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from sqlalchemy import MetaData

from faststream_outbox import make_dlq_table, make_outbox_table
from faststream_outbox.admin.page import history
from integration.demo.test_demo import CHROMIUM_FLAGS
from integration.servers.postgres import running_postgres

from .served import run_sql, served_outbox

SECONDS = 75
WIDE, PHONE = {"width": 1200, "height": 860}, {"width": 390, "height": 844}
PICTURES = {
    "page-light": ("", "light", WIDE),
    "page-dark": ("", "dark", WIDE),
    "page-phone": ("", "light", PHONE),
    "page-dead-letters": ("dead", "light", WIDE),
    "page-dead-letter": ("letter?id=9007199254740994", "dark", WIDE),
}

CHURN = """
INSERT INTO outbox (queue, key, idempotency_key, payload, headers)
SELECT 'orders', 'customer-' || mod(n, 40), gen_random_uuid(), convert_to('{"order_id": ' || n || '}', 'UTF8'), '{}'
FROM generate_series(1, 30 + CAST(50 * random() AS integer)) AS n;
DELETE FROM outbox WHERE id IN (
    SELECT id FROM outbox WHERE queue = 'orders' ORDER BY id LIMIT 30 + CAST(50 * random() AS integer)
);
"""


def main(folder: Path) -> None:
    """Write the pictures into a folder."""
    history.INTERVAL = history.KEEP_SECONDS = 1.0
    metadata = MetaData()
    make_outbox_table(metadata)
    make_dlq_table(metadata)
    with running_postgres() as server, server.template(metadata), server.database() as url:
        ended = threading.Event()
        churn = threading.Thread(target=_churn, args=(url, ended))
        churn.start()
        try:
            with served_outbox(url) as address:
                time.sleep(SECONDS)
                _take(address, folder)
        finally:
            ended.set()
            churn.join()


def _churn(url: str, ended: threading.Event) -> None:
    while not ended.wait(0.5):
        run_sql(url, *filter(str.strip, CHURN.split(";")))


def _take(address: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        for name, (path, scheme, size) in PICTURES.items():
            context = browser.new_context(color_scheme=scheme, viewport=size)
            page = context.new_page()
            page.goto(address + path)
            page.screenshot(path=folder / f"{name}.png")
            context.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
