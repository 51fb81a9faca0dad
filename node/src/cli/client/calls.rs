//! Every call of the contracts that the command line makes, as a method of the client.

use futures::FutureExt as _;
use proto::{
    catalog::v1::{
        GetProductRequest, GetStockRequest, Product, PutProductRequest, ReceiveStockRequest, StockItem,
        WriteOffStockRequest, products_client::ProductsClient, stock_client::StockClient,
    },
    cluster::v1::{
        DigestsRequest, DigestsResponse, ForceBreakerRequest, ForceBreakerResponse, LiftQuarantineRequest,
        LiftQuarantineResponse, ListQuarantineRequest, ListQuarantineResponse, ListTimersRequest, ListTimersResponse,
        SetStandingRequest, SetStandingResponse, ShowEntityRequest, ShowEntityResponse, ShowQuarantineRequest,
        ShowQuarantineResponse, StatusRequest, StatusResponse, SupervisionRequest, SupervisionResponse,
        admin_client::AdminClient,
    },
    events::v1::{
        DeadLetter, DeleteGroupRequest, DeleteGroupResponse, GetDeadLetterRequest, GetGroupRequest, Group,
        LiftDeadLetterRequest, LiftDeadLetterResponse, ListDeadLettersRequest, ListDeadLettersResponse,
        ListGroupsRequest, ListGroupsResponse, ResetGroupRequest, ResetGroupResponse, events_client::EventsClient,
    },
    history::v1::{
        AuditRequest, AuditResponse, DiffRequest, DiffResponse, ForgetRequest, ForgetResponse, ForgottenRequest,
        ForgottenResponse, ShowAtRequest, ShowAtResponse, history_client::HistoryClient,
    },
    order::v1::{
        CancelOrderRequest, GetOrderRequest, Order, PlaceOrderRequest, PlaceOrderResponse, ReturnItemsRequest,
        ReturnItemsResponse, orders_client::OrdersClient,
    },
    payment::v1::{GetPaymentRequest, Payment, payments_client::PaymentsClient},
    projection::v1::{
        ListProjectionsRequest, ListProjectionsResponse, QueryRequest, QueryResponse, RebuildRequest, RebuildResponse,
        ShowProjectionRequest, ShowProjectionResponse, projections_client::ProjectionsClient,
    },
    saga::v1::{
        ExplainSagaRequest, ExplainSagaResponse, ListSagasRequest, ListSagasResponse, NudgeSagaRequest,
        NudgeSagaResponse, ShowSagaRequest, ShowSagaResponse, sagas_client::SagasClient,
    },
    schema::v1::{CheckRequest, CheckResponse, DescribeRequest, DescribeResponse, schemas_client::SchemasClient},
    telemetry::v1::{
        CompareTracesRequest, CompareTracesResponse, GetTraceRequest, GraphRequest, GraphResponse, PurgeTracesRequest,
        PurgeTracesResponse, ReadLogsRequest, ReadLogsResponse, SearchTracesRequest, SearchTracesResponse,
        SeriesRequest, SeriesResponse, SetLevelRequest, SetLevelResponse, StoresRequest, StoresResponse, Trace,
        logs_client::LogsClient, metrics_client::MetricsClient, traces_client::TracesClient,
    },
};

use super::{CallError, Client};

/// An entity's whole history comes in one message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Calls that change something: they need a request id.
macro_rules! commands {
    ($($name:ident: $client:ident, $request:ty => $reply:ty;)*) => {
        impl Client {
            $(pub(crate) async fn $name(&self, request_id: &str, message: $request) -> Result<$reply, CallError> {
                self.call(Some(request_id), message, |channel, request| {
                    async move { $client::new(channel).$name(request).await }.boxed()
                })
                .await
            })*
        }
    };
}

/// Calls whose name in the contract says too little here.
macro_rules! renamed {
    ($($name:ident = $method:ident: $client:ident, $request:ty => $reply:ty;)*) => {
        impl Client {
            $(pub(crate) async fn $name(&self, message: $request) -> Result<$reply, CallError> {
                self.call(None, message, |channel, request| {
                    let client = $client::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
                    async move { { client }.$method(request).await }.boxed()
                })
                .await
            })*
        }
    };
}

/// Calls that only read.
macro_rules! reads {
    ($($name:ident: $client:ident, $request:ty => $reply:ty;)*) => {
        impl Client {
            $(pub(crate) async fn $name(&self, message: $request) -> Result<$reply, CallError> {
                self.call(None, message, |channel, request| {
                    let client = $client::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
                    async move { { client }.$name(request).await }.boxed()
                })
                .await
            })*
        }
    };
}

commands! {
    place_order: OrdersClient, PlaceOrderRequest => PlaceOrderResponse;
    cancel_order: OrdersClient, CancelOrderRequest => Order;
    return_items: OrdersClient, ReturnItemsRequest => ReturnItemsResponse;
    put_product: ProductsClient, PutProductRequest => Product;
    receive_stock: StockClient, ReceiveStockRequest => StockItem;
    write_off_stock: StockClient, WriteOffStockRequest => StockItem;
    retry_quarantined: AdminClient, LiftQuarantineRequest => LiftQuarantineResponse;
    skip_quarantined: AdminClient, LiftQuarantineRequest => LiftQuarantineResponse;
    forget: HistoryClient, ForgetRequest => ForgetResponse;
    force_breaker: AdminClient, ForceBreakerRequest => ForceBreakerResponse;
    nudge_saga: SagasClient, NudgeSagaRequest => NudgeSagaResponse;
}

reads! {
    list_groups: EventsClient, ListGroupsRequest => ListGroupsResponse;
    get_group: EventsClient, GetGroupRequest => Group;
    list_dead_letters: EventsClient, ListDeadLettersRequest => ListDeadLettersResponse;
    get_dead_letter: EventsClient, GetDeadLetterRequest => DeadLetter;
    // Said twice, these are as if they were said once.
    reset_group: EventsClient, ResetGroupRequest => ResetGroupResponse;
    delete_group: EventsClient, DeleteGroupRequest => DeleteGroupResponse;
    retry_dead_letter: EventsClient, LiftDeadLetterRequest => LiftDeadLetterResponse;
    skip_dead_letter: EventsClient, LiftDeadLetterRequest => LiftDeadLetterResponse;
    get_order: OrdersClient, GetOrderRequest => Order;
    get_product: ProductsClient, GetProductRequest => Product;
    get_stock: StockClient, GetStockRequest => StockItem;
    get_payment: PaymentsClient, GetPaymentRequest => Payment;
    status: AdminClient, StatusRequest => StatusResponse;
    show_entity: AdminClient, ShowEntityRequest => ShowEntityResponse;
    digests: AdminClient, DigestsRequest => DigestsResponse;
    list_sagas: SagasClient, ListSagasRequest => ListSagasResponse;
    show_saga: SagasClient, ShowSagaRequest => ShowSagaResponse;
    explain_saga: SagasClient, ExplainSagaRequest => ExplainSagaResponse;
    list_timers: AdminClient, ListTimersRequest => ListTimersResponse;
    // Said twice, it is as if it was said once.
    set_standing: AdminClient, SetStandingRequest => SetStandingResponse;
    supervision: AdminClient, SupervisionRequest => SupervisionResponse;
    list_quarantine: AdminClient, ListQuarantineRequest => ListQuarantineResponse;
    show_at: HistoryClient, ShowAtRequest => ShowAtResponse;
    audit: HistoryClient, AuditRequest => AuditResponse;
    forgotten: HistoryClient, ForgottenRequest => ForgottenResponse;
    diff: HistoryClient, DiffRequest => DiffResponse;
    show_quarantine: AdminClient, ShowQuarantineRequest => ShowQuarantineResponse;
    describe: SchemasClient, DescribeRequest => DescribeResponse;
    check: SchemasClient, CheckRequest => CheckResponse;
    series: MetricsClient, SeriesRequest => SeriesResponse;
    list_projections: ProjectionsClient, ListProjectionsRequest => ListProjectionsResponse;
    show_projection: ProjectionsClient, ShowProjectionRequest => ShowProjectionResponse;
    query_projection: ProjectionsClient, QueryRequest => QueryResponse;
    // Said twice, it is as if it was said once.
    rebuild_projection: ProjectionsClient, RebuildRequest => RebuildResponse;
}

// Those that change something are as if they were said once when they are said twice.
renamed! {
    search_traces = search: TracesClient, SearchTracesRequest => SearchTracesResponse;
    get_trace = get: TracesClient, GetTraceRequest => Trace;
    compare_traces = compare: TracesClient, CompareTracesRequest => CompareTracesResponse;
    trace_graph = graph: TracesClient, GraphRequest => GraphResponse;
    purge_traces = purge: TracesClient, PurgeTracesRequest => PurgeTracesResponse;
    trace_stores = stores: TracesClient, StoresRequest => StoresResponse;
    read_logs = read: LogsClient, ReadLogsRequest => ReadLogsResponse;
    set_log_level = set_level: LogsClient, SetLevelRequest => SetLevelResponse;
}
