"""`logging` to the server: it never waits for it and never raises."""

import logging

import streamkit

handler = streamkit.StreamHandler("example-api")
log = logging.getLogger("shop")
log.addHandler(handler)
log.setLevel(logging.INFO)
log.info("an order", extra={"order": 7, "customer": "ann"})
try:
    1 / 0  # noqa: B018  # raises, for the traceback
except ZeroDivisionError:
    log.exception("the order cannot be priced")
handler.close()  # waits for what is on its way
