//! The gRPC contracts of Playhouse as Rust types, one module for each context and version.
//!
//! The `.proto` files beside this folder are the documentation of each message.
#![allow(missing_docs, clippy::pedantic)] // Generated code; its documentation stands in the contracts.

/// The file descriptors of all contracts, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod common {
    pub mod v1 {
        tonic::include_proto!("playhouse.common.v1");
    }
}
pub mod order {
    pub mod v1 {
        tonic::include_proto!("playhouse.order.v1");
    }
}
pub mod catalog {
    pub mod v1 {
        tonic::include_proto!("playhouse.catalog.v1");
    }
}
pub mod payment {
    pub mod v1 {
        tonic::include_proto!("playhouse.payment.v1");
    }
}
pub mod gateway {
    pub mod v1 {
        tonic::include_proto!("playhouse.gateway.v1");
    }
}
pub mod events {
    pub mod v1 {
        tonic::include_proto!("playhouse.events.v1");
    }
}
pub mod history {
    pub mod v1 {
        tonic::include_proto!("playhouse.history.v1");
    }
}
pub mod saga {
    pub mod v1 {
        tonic::include_proto!("playhouse.saga.v1");
    }
}
pub mod cluster {
    pub mod v1 {
        tonic::include_proto!("playhouse.cluster.v1");
    }
}
pub mod schema {
    pub mod v1 {
        tonic::include_proto!("playhouse.schema.v1");
    }
}
pub mod projection {
    pub mod v1 {
        tonic::include_proto!("playhouse.projection.v1");
    }
}
pub mod chaos {
    pub mod v1 {
        tonic::include_proto!("playhouse.chaos.v1");
    }
}
pub mod telemetry {
    pub mod v1 {
        tonic::include_proto!("playhouse.telemetry.v1");
    }
}
