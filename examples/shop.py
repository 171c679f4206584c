"""Orders become invoices and receipts; a receipt that dies is refunded."""

from pydantic import BaseModel

from busline import App, Queue, Retry, Topic


class Order(BaseModel):
    id: str
    email: str
    cents: int


class Invoice(BaseModel):
    order_id: str
    cents: int


app = App("shop")
orders = Topic("orders", Order, key=lambda o: o.id)
invoices = Topic("invoices", Invoice, key="order_id")
mail = Queue("mail")


@app.subscriber(orders, publish=invoices)
async def bill(order: Order) -> Invoice | None:
    if order.cents == 0:
        return None
    # leaves with the outcome: a failed attempt mails nobody
    await send_receipt.enqueue(order.email, order.cents)
    return Invoice(order_id=order.id, cents=order.cents)


@app.task(queue=mail, retry=Retry(5, delay=1), timeout=30)
async def send_receipt(email: str, cents: int) -> str:
    return f"sent to {email}"
