//! What a node offers over gRPC. Handlers only parse, call the engine, render.
//!
//! [`request`] reads what every call carries, [`reading`] how new what it reads must be, [`convert`] the content, [`rejection`] and [`status`] say what went wrong;
//! [`orders`], [`products`], [`stock`], [`payments`], [`sagas`], [`events`], [`projections`], [`schema`], [`admin`], [`history`], [`metrics`], [`chaos`], [`traces`] and [`logs`] are one service each;
//! [`gateway`] carries the same commands over one stream. [`measured`] counts all calls. [`wait`] is the long poll behind them, [`calls`] counts what is under way, [`audit`] notes who looks
//! and who changes, [`decode`] sees to messages that cannot be read, [`traced`] is a call's span, [`members`] asks all nodes the same: [`exemplars`] for calls that stand
//! for others, [`certificates`] which certificate they show.

mod admin;
mod audit;
pub(crate) mod calls;
mod certificates;
mod chaos;
mod convert;
mod decode;
mod events;
mod exemplars;
mod gateway;
mod history;
mod logs;
mod measured;
mod members;
mod metrics;
mod orders;
mod payments;
mod products;
mod projections;
pub(crate) mod reading;
mod rejection;
pub(crate) mod request;
mod returns;
mod sagas;
mod schema;
mod status;
mod stock;
pub(crate) mod traced;
pub(crate) mod traces;
mod wait;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::TraceServiceServer;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use proto::{
    catalog::v1::{products_server::ProductsServer, stock_server::StockServer},
    chaos::v1::chaos_server::ChaosServer,
    cluster::v1::admin_server::AdminServer,
    events::v1::events_server::EventsServer,
    gateway::v1::gateway_server::GatewayServer,
    history::v1::history_server::HistoryServer,
    order::v1::orders_server::OrdersServer,
    payment::v1::payments_server::PaymentsServer,
    projection::v1::projections_server::ProjectionsServer,
    saga::v1::sagas_server::SagasServer,
    schema::v1::schemas_server::SchemasServer,
    telemetry::v1::{logs_server::LogsServer, metrics_server::MetricsServer, traces_server::TracesServer},
};
use tonic::service::Routes;
use tonic_health::server::HealthReporter;

use crate::telemetry::logs::context;
use decode::MESSAGE_BYTES_MAX;
use request::Edge;

/// What nodes say to each other is no business of clients, and is not reflected.
const HIDDEN_CONTRACT: &str = "cluster/v1/peer.proto";

/// All services for clients, with reflection and health. Health says "serving" once [`serving`] was called.
pub(crate) async fn routes(edge: &Edge) -> (Routes, HealthReporter) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let descriptors =
        FileDescriptorSet::decode(proto::DESCRIPTORS).expect("the contracts were compiled by our own build");
    let reflection = tonic_reflection::server::Builder::configure()
        .register_file_descriptor_set(FileDescriptorSet {
            file: (descriptors.file.into_iter())
                .filter(|file| file.name() != HIDDEN_CONTRACT)
                .collect(),
        })
        .build_v1()
        .expect("the contracts were compiled by our own build");
    set_serving(&health, false).await;
    let services = Routes::default()
        .add_service(OrdersServer::new(orders::Orders::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            ProductsServer::new(products::Products::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(StockServer::new(stock::Stock::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            PaymentsServer::new(payments::Payments::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            GatewayServer::new(gateway::Gateway::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(SagasServer::new(sagas::Sagas::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(EventsServer::new(events::Events::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            ProjectionsServer::new(projections::Projections::new(edge.clone()))
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(AdminServer::new(admin::Admin::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            HistoryServer::new(history::History::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(
            SchemasServer::new(schema::Schemas::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(ChaosServer::new(chaos::Chaos::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            MetricsServer::new(metrics::Metrics::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX),
        )
        .add_service(TracesServer::new(traces::Traces::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(LogsServer::new(logs::Logs::new(edge.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            TraceServiceServer::new(traces::Receiver::new(edge.clone()))
                .max_decoding_message_size(traces::SPANS_BYTES_MAX),
        )
        .add_service(reflection)
        .add_service(health_service);
    let mended = services
        .into_axum_router()
        .layer(axum::middleware::map_response(decode::mend))
        .layer(axum::middleware::from_fn_with_state(
            edge.metrics.clone(),
            measured::measure,
        ))
        .layer(axum::middleware::from_fn(context::middleware));
    (Routes::from(mended), health)
}

/// Says of every service whether it can be used.
pub(crate) async fn set_serving(health: &HealthReporter, serving: bool) {
    use tonic_health::ServingStatus;

    let status = if serving {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    let names = [
        "",
        "playhouse.order.v1.Orders",
        "playhouse.catalog.v1.Products",
        "playhouse.catalog.v1.Stock",
        "playhouse.payment.v1.Payments",
        "playhouse.gateway.v1.Gateway",
        "playhouse.saga.v1.Sagas",
        "playhouse.events.v1.Events",
        "playhouse.projection.v1.Projections",
        "playhouse.cluster.v1.Admin",
        "playhouse.history.v1.History",
        "playhouse.schema.v1.Schemas",
        "playhouse.chaos.v1.Chaos",
        "playhouse.telemetry.v1.Metrics",
        "playhouse.telemetry.v1.Traces",
        "playhouse.telemetry.v1.Logs",
    ];
    for name in names {
        health.set_service_status(name, status).await;
    }
}
