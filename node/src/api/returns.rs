//! Taking goods back, the last call of the orders service.

use actors::{
    ReturnId,
    returns::{self, Command, Input, Phase, Return},
};
use cluster::{Entity as _, Error};
use proto::order::v1 as pb;

use super::{
    convert,
    orders::{Orders, derived_id},
    rejection,
    request::{Call, sent},
    status::Fault,
    wait,
};

impl Orders {
    /// Takes goods back and waits until money and stock have gone back, or the return was refused.
    pub(super) async fn return_items(
        &self,
        call: &Call,
        request: pb::ReturnItemsRequest,
    ) -> Result<pb::ReturnItemsResponse, Fault> {
        let sent = sent("ReturnItems", &request);
        let brought_back = convert::brought_back(request)?;
        let id = match brought_back.return_id {
            Some(id) => id,
            None => derived_id("return_id", call, ReturnId::new)?,
        };
        let start = Command::Start(Input {
            customer: brought_back.customer,
            lines: brought_back.lines,
        });
        let request = call.command(sent);
        let started = self.edge.ask::<Return>(call, &id, &start, &request).await;
        started.map_err(|error| rejection::of_return(error, &id))?;

        let longest = call.time_left();
        let seen =
            wait::until::<Return>(&self.edge, call, longest, &id, 0, |state| state.phase.end().is_some()).await?;
        let state = seen.map(|seen| seen.state).unwrap_or_default();
        match state.phase {
            Phase::Completed => Ok(pb::ReturnItemsResponse {
                return_id: id.to_string(),
                refunded: Some(convert::money(returns::refunded_of(&state))),
                order_ids: returns::orders_of(&state).into_iter().map(ToOwned::to_owned).collect(),
            }),
            Phase::Undone => {
                let reason = state.reason.unwrap_or_default();
                Err(rejection::of_saga(format!("{}/{id}", Return::KIND), &reason))
            }
            // The return goes on; the same call says later how it ended.
            Phase::New | Phase::Running | Phase::Undoing => Err(Error::TimedOut { after: longest }.into()),
        }
    }
}
