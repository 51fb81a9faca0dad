//! What a user of the engine calls to ask read models, to see how they stand and to build them anew.

use bytes::Bytes;

use super::{Projected, Projection, ProjectionView, QueryOptions, RebuildBegun, carried::Carried};
use crate::{
    cluster::{Cluster, Request},
    codec,
    error::Error,
    feed::Position,
};

/// The rows of one copy, and the last record that it took in.
pub type ModelRows = (Position, Vec<(Vec<u8>, Bytes)>);

impl Cluster {
    /// Asks one replica of each shard and merges what they say. One shard that cannot answer in time is an error that names it:
    /// an answer is never of a part of the shards.
    pub async fn query<P: Projection>(
        &self,
        query: &P::Query,
        options: &QueryOptions,
        request: &Request,
    ) -> Result<Projected<P::Answer>, Error> {
        let carried = self.engine().carried(P::NAME)?;
        let carried = carried.iter().find(|carried| carried.version() == P::VERSION);
        let carried = carried.ok_or_else(|| Error::Invalid {
            field: "projection".to_owned(),
            reason: format!("{} is not carried in version {}", P::NAME, P::VERSION),
        })?;
        let gathered = self
            .engine()
            .query_projection(carried, codec::encode(query), options, request)
            .await?;
        Ok(Projected {
            answer: codec::decode(&gathered.answer).map_err(|error| unreadable(carried.name(), &error))?,
            version: P::VERSION,
            staleness: gathered.staleness,
            tokens: gathered.tokens,
        })
    }

    /// The same by name, with question and answer in JSON. While the latest version is still being built, the one before it
    /// answers, if this build carries it.
    pub async fn query_json(
        &self,
        name: &str,
        json: &str,
        options: &QueryOptions,
        request: &Request,
    ) -> Result<Projected<serde_json::Value>, Error> {
        let versions = self.engine().carried(name)?;
        let views = match &versions[..] {
            [_] => Vec::new(),
            _ => self.projections().await,
        };
        let is_built = |carried: &&std::sync::Arc<dyn Carried>| {
            let of = |view: &&ProjectionView| (&*view.name, view.version) == (name, carried.version());
            let copies = views.iter().find(of).map(|view| &view.replicas);
            copies.is_some_and(|copies| copies.iter().all(|copy| copy.serving.is_some()))
        };
        let carried = versions.iter().find(is_built).unwrap_or(&versions[0]);
        let query = carried.query_of_json(json).map_err(|reason| Error::Invalid {
            field: "query".to_owned(),
            reason,
        })?;
        let gathered = self.engine().query_projection(carried, query, options, request).await?;
        Ok(Projected {
            answer: (carried.answer_json(&gathered.answer)).map_err(|error| unreadable(name, &error))?,
            version: carried.version(),
            staleness: gathered.staleness,
            tokens: gathered.tokens,
        })
    }

    /// What this node's own copies say of the shards that it leads, part by part and as new as they are: the parts of all nodes
    /// together are those of all shards. Shards whose copy is not built yet, or cannot be read, are missing.
    pub async fn led_parts<P: Projection>(&self, query: &P::Query) -> Vec<P::Partial> {
        let parts = self.engine().led_parts(P::NAME, P::VERSION, codec::encode(query)).await;
        parts.iter().filter_map(|part| codec::decode(part).ok()).collect()
    }

    /// All projections that this node carries, and their copies on all nodes that can be reached.
    pub async fn projections(&self) -> Vec<ProjectionView> {
        self.engine().projection_views().await
    }

    /// Builds the latest version of a projection anew on all nodes that can be reached, from the beginning of their own feeds,
    /// while what is there goes on answering. Does nothing where that is under way already.
    pub async fn rebuild_projection(&self, name: &str) -> Result<RebuildBegun, Error> {
        self.engine().rebuild_projection(name).await
    }

    /// All rows of this node's own copy of a shard's model, for comparing; `None` if it has none that answers. All of them are in
    /// memory at once.
    pub async fn projection_rows<P: Projection>(&self, shard: u32) -> Result<Option<ModelRows>, Error> {
        self.engine().model_rows(P::NAME, P::VERSION, shard).await
    }
}

fn unreadable(name: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Failed {
        entity: format!("the projection {name}"),
        reason: format!("its answer cannot be read: {error}"),
    }
}
