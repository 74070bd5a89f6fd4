"""A shop that keeps its shipments in the database of its payments: run with ``oplata up --app shop:app``.

``tables.sql`` makes the table. What is written through ``tx`` is committed together with the payment, or not at all.
"""

from __future__ import annotations

from oplata import Change, Handlers, Transaction

app = Handlers()


@app.on("paid")
async def ship(change: Change, tx: Transaction) -> None:
    """Once per order, even if it should be paid, disputed and paid again."""
    await tx.execute(
        "INSERT INTO shipments (order_id, state, amount_kopecks) VALUES (:order_id, 'to be packed', :amount_kopecks) "
        "ON CONFLICT (order_id) DO NOTHING",
        order_id=change.order_id,
        amount_kopecks=change.amount_kopecks,
    )


@app.on("canceled", "refunded")
async def hold_back(change: Change, tx: Transaction) -> None:
    """What has left the house cannot be called back; somebody has to write to the buyer then."""
    held = await tx.execute(
        "UPDATE shipments SET state = 'held back' "
        "WHERE order_id = :order_id AND state = 'to be packed' RETURNING order_id",
        order_id=change.order_id,
    )
    if not held:
        await tx.execute(
            "INSERT INTO letters (order_id, about) VALUES (:order_id, :about)",
            order_id=change.order_id,
            about=change.status,
        )
