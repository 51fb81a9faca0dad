// Places one order, and repeats the call under the same request id until the answer is definite.
//
//     playhouse up                        (in another terminal)
//     cd examples/typescript && npm install && npm start [HOST:PORT ...]
//
// The contracts are read when the program starts, from the folder `proto` of this repository.

import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import * as grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const NODES = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"];
const ATTEMPTS_MAX = 20;
const ATTEMPT_TIMEOUT_MS = 5_000;
// Every other code is a definite no.
const MAY_SUCCEED_LATER = new Set([
  grpc.status.UNAVAILABLE,
  grpc.status.RESOURCE_EXHAUSTED,
  grpc.status.DEADLINE_EXCEEDED,
  grpc.status.ABORTED,
  grpc.status.UNKNOWN,
  grpc.status.CANCELLED,
]);

const contracts: any = grpc.loadPackageDefinition(
  loadSync(["order/v1/order.proto", "catalog/v1/catalog.proto"], {
    includeDirs: [fileURLToPath(new URL("../../proto", import.meta.url))],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
  }),
);
const { Orders } = contracts.playhouse.order.v1;
const { Products, Stock } = contracts.playhouse.catalog.v1;

const nodes = process.argv.length > 2 ? process.argv.slice(2) : NODES;

function once(Service: any, node: string, method: string, message: object, requestId: string): Promise<any> {
  const client = new Service(node, grpc.credentials.createInsecure());
  const metadata = new grpc.Metadata();
  metadata.set("x-request-id", requestId);
  const deadline = Date.now() + ATTEMPT_TIMEOUT_MS;
  return new Promise((resolve, reject) => {
    client[method](message, metadata, { deadline }, (error: grpc.ServiceError | null, reply: any) => {
      client.close();
      error ? reject(error) : resolve(reply);
    });
  });
}

// Repeats a call, on one node after the other: any node takes any call.
async function untilDefinite(Service: any, method: string, message: object, requestId: string): Promise<any> {
  let last: unknown;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    try {
      return await once(Service, nodes[attempt % nodes.length], method, message, requestId);
    } catch (error) {
      if (!MAY_SUCCEED_LATER.has((error as grpc.ServiceError).code)) throw error;
      last = error;
      await sleep(100);
    }
  }
  throw last;
}

const run = randomUUID();
const price = { minor: 255, currency: "GBP" };
await untilDefinite(Products, "PutProduct", { sku: "example-tea", name: "Tea", price }, `product-${run}`);
await untilDefinite(Stock, "ReceiveStock", { sku: "example-tea", quantity: 10 }, `delivery-${run}`);

// Chosen once for what is wanted, not for each attempt.
const requestId = `example-${run}`;
const wanted = { customer_id: "ann", lines: [{ sku: "example-tea", quantity: 3 }] };
const first = await untilDefinite(Orders, "PlaceOrder", wanted, requestId);
const { minor, currency } = first.order.total;
const amount = String(minor).padStart(3, "0").replace(/(..)$/, ".$1");
console.log(`order ${first.order.order_id}: ${first.order.status}, ${amount} ${currency}`);
const again = await untilDefinite(Orders, "PlaceOrder", wanted, requestId);
if (again.order.order_id !== first.order.order_id) throw new Error("the same request id must mean the same order");
console.log(`asked again under ${requestId}: the same order, placed once`);
