//! Products over gRPC: put and get.

use actors::{
    Sku,
    product::{Command, NAME_LEN_MAX, Product},
};
use cluster::Entity as _;
use proto::catalog::v1 as pb;
use tonic::{Response, Status};

use super::{
    convert, rejection,
    request::{Call, Edge, sent},
    status::Fault,
};

/// The products service.
#[derive(Clone)]
pub(crate) struct Products {
    edge: Edge,
}

#[tonic::async_trait]
impl pb::products_server::Products for Products {
    async fn put_product(
        &self,
        request: tonic::Request<pb::PutProductRequest>,
    ) -> Result<Response<pb::Product>, Status> {
        let (call, request) = self.edge.receive("Products/PutProduct", request)?;
        call.answer(self.put(&call, request).await)
    }

    async fn get_product(
        &self,
        request: tonic::Request<pb::GetProductRequest>,
    ) -> Result<Response<pb::Product>, Status> {
        let (call, request) = self.edge.receive("Products/GetProduct", request)?;
        call.answer(self.get(&call, request).await)
    }
}

impl Products {
    /// The service at this edge.
    pub(crate) fn new(edge: Edge) -> Self {
        Self { edge }
    }

    /// Creates a product, or changes its name and price.
    pub(super) async fn put(&self, call: &Call, request: pb::PutProductRequest) -> Result<pb::Product, Fault> {
        let asked = call.command(sent("PutProduct", &request));
        let sku = convert::id("sku", request.sku, Sku::new)?;
        let name = convert::text("name", request.name, NAME_LEN_MAX)?;
        if name.trim().is_empty() {
            return Err(Fault::invalid("name", "is empty; give the product a name"));
        }
        let price = request.price.ok_or_else(|| Fault::invalid("price", "is missing"))?;
        let command = Command::Put {
            name: name.clone(),
            price: convert::amount("price", &price)?,
        };
        let put = self.edge.ask::<Product>(call, &sku, &command, &asked).await;
        let reply = put.map_err(|error| rejection::of_product(error, &sku))?;
        Ok(pb::Product {
            sku: sku.to_string(),
            name,
            price: Some(price),
            version: reply.version,
        })
    }

    async fn get(&self, call: &Call, request: pb::GetProductRequest) -> Result<pb::Product, Fault> {
        let sku = convert::id("sku", request.sku, Sku::new)?;
        let product = self.edge.show::<Product>(call, &sku).await?.state;
        if !product.exists() {
            return Err(Fault::NotFound {
                kind: Product::KIND,
                id: sku.to_string(),
            });
        }
        Ok(convert::product(&sku, &product))
    }
}
