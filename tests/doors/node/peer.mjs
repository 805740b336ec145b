// One conversation with a server by somebody else's client: node peer.mjs CLIENT BASE DESCRIPTORS
// Reads 5 updates from the start, publishes one and reads it; asks for a job that is not there; meets a deadline.
import { readFileSync } from "node:fs";
import { createFileRegistry, fromBinary, toBinary, create } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";

const [which, baseUrl, descriptors] = process.argv.slice(2);
const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(descriptors)));
const service = (name) => registry.getService("streamservice." + name);
const transports = {
  "connect-web json": () => web.createConnectTransport({ baseUrl }),
  "connect-web binary": () => web.createConnectTransport({ baseUrl, useBinaryFormat: true }),
  "connect-web grpc-web": () => web.createGrpcWebTransport({ baseUrl }),
  "connect-node connect h1": () => node.createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "connect-node connect h2": () => node.createConnectTransport({ baseUrl, httpVersion: "2" }),
  "connect-node grpc-web h1": () => node.createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  "connect-node grpc-web h2": () => node.createGrpcWebTransport({ baseUrl, httpVersion: "2" }),
  "connect-node grpc": () => node.createGrpcTransport({ baseUrl }),
};
const told = {};

async function connect() {
  const transport = transports[which]();
  const admin = createClient(service("AdminService"), transport);
  const streams = createClient(service("StreamService"), transport);
  const producer = createClient(service("ProducerService"), transport);
  told.version = (await admin.getStatus({})).version;
  told.read = [];
  const start = { place: { case: "all", value: true } };
  for await (const update of streams.subscribeToUpdates({ topics: ["orders"], start })) {
    told.read.push(update.message);
    if (told.read.length === 5) await producer.publish({ updates: [{ topic: "orders", message: "from the peer" }] });
    if (told.read.length === 6) break;
  }
  try { await producer.cancelJob({ jobId: "nobody's" }); } catch (error) { told.missing = [Code[error.code], error.rawMessage]; }
  try {
    for await (const _ of streams.subscribeToUpdates({ topics: ["quiet"] }, { timeoutMs: 300 }));
  } catch (error) { told.late = Code[ConnectError.from(error).code]; }
  try { for await (const _ of streams.tailLogs({ logLevel: "loud" })); } catch (error) { told.wrong = Code[error.code]; }
}

// Google's own client of browsers: text, over XMLHttpRequest.
async function google() {
  const { default: xhr2 } = await import("xhr2");
  globalThis.XMLHttpRequest = xhr2;
  const { default: grpcWeb } = await import("grpc-web");
  const client = new grpcWeb.GrpcWebClientBase({ format: "text" });
  const method = (serviceName, name) => {
    const rpc = service(serviceName).methods.find((one) => one.name === name);
    const kind = rpc.methodKind === "server_streaming" ? grpcWeb.MethodType.SERVER_STREAMING : grpcWeb.MethodType.UNARY;
    return [`/streamservice.${serviceName}/${name}`, rpc, new grpcWeb.MethodDescriptor(`/streamservice.${serviceName}/${name}`, kind, Object, Object,
      (message) => toBinary(rpc.input, message), (bytes) => fromBinary(rpc.output, bytes))];
  };
  const unary = (serviceName, name, message) => new Promise((resolve, reject) => {
    const [path, rpc, info] = method(serviceName, name);
    client.rpcCall(baseUrl + path, create(rpc.input, message), {}, info, (error, reply) => (error ? reject(error) : resolve(reply)));
  });
  told.version = (await unary("AdminService", "GetStatus", {})).version;
  told.read = [];
  await unary("ProducerService", "WriteLogs", { entries: [{ service: "orders", message: "from the peer" }] });
  // XMLHttpRequest under node shows a body when it is whole: a stream with an end.
  await new Promise((resolve, reject) => {
    const [path, rpc, info] = method("StreamService", "TailLogs");
    const stream = client.serverStreaming(baseUrl + path, create(rpc.input, { serviceName: "orders" }), {}, info);
    stream.on("error", reject);
    stream.on("data", (entry) => told.read.push(entry.message));
    stream.on("end", resolve);
  });
  try { await unary("ProducerService", "CancelJob", { jobId: "nobody's" }); } catch (error) { told.missing = [error.code, error.message]; }
}

await (which === "grpc-web text" ? google() : connect());
console.log(JSON.stringify(told));
process.exit(0);
