"""Places one order, and repeats the call under the same request id until the answer is definite.

    pip install grpcio grpcio-tools
    playhouse up                        # in another terminal
    python examples/python/place_order.py [HOST:PORT ...]

The contracts are compiled when the program starts, from the folder `proto` of this repository.
"""

import sys
import time
import uuid
from itertools import cycle, islice
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "proto"))
catalog, catalog_services = grpc.protos_and_services("catalog/v1/catalog.proto")
common = grpc.protos("common/v1/common.proto")
order, order_services = grpc.protos_and_services("order/v1/order.proto")

NODES = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"]
ATTEMPTS_MAX = 20
ATTEMPT_TIMEOUT_S = 5
# Every other code is a definite no.
MAY_SUCCEED_LATER = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
}


def until_definite(channels, request_id, message, method):
    """Repeats a call, on one node after the other: any node takes any call."""
    for channel in islice(cycle(channels), ATTEMPTS_MAX):
        try:
            return method(channel)(
                message, timeout=ATTEMPT_TIMEOUT_S, metadata=[("x-request-id", request_id)]
            )
        except grpc.RpcError as error:
            if error.code() not in MAY_SUCCEED_LATER:
                raise
            last = error
            time.sleep(0.1)
    raise last


def main():
    channels = [grpc.insecure_channel(node) for node in sys.argv[1:] or NODES]
    run = uuid.uuid4().hex
    until_definite(
        channels,
        f"product-{run}",
        catalog.PutProductRequest(sku="example-tea", name="Tea", price=common.Money(minor=255, currency="GBP")),
        lambda channel: catalog_services.ProductsStub(channel).PutProduct,
    )
    until_definite(
        channels,
        f"delivery-{run}",
        catalog.ReceiveStockRequest(sku="example-tea", quantity=10),
        lambda channel: catalog_services.StockStub(channel).ReceiveStock,
    )

    # Chosen once for what is wanted, not for each attempt.
    request_id = f"example-{run}"
    wanted = order.PlaceOrderRequest(customer_id="ann", lines=[order.OrderLine(sku="example-tea", quantity=3)])

    def place():
        return until_definite(
            channels, request_id, wanted, lambda channel: order_services.OrdersStub(channel).PlaceOrder
        )

    first = place()
    total = first.order.total
    print(
        f"order {first.order.order_id}: {order.OrderStatus.Name(first.order.status)}, "
        f"{total.minor // 100}.{total.minor % 100:02} {total.currency}"
    )
    again = place()
    assert again.order.order_id == first.order.order_id
    print(f"asked again under {request_id}: the same order, placed once")


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
