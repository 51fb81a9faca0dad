//! Fetches what was recorded of an entity, page by page, and goes on at another node when one goes away.

use std::time::Duration;

use cluster::{
    EntityKey,
    history::{Base, Head, Recorded, wire},
};
use proto::history::v1::{RecordsPage, RecordsRequest, history_client::HistoryClient};
use tokio::time::{sleep, timeout};
use tonic::{Code, Request, Status, Streaming};

use crate::cli::{
    client::{Client, MESSAGE_BYTES_MAX},
    failure::{Failure, refusal_text},
};

/// How long a stream may stand still.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often in a row a stream is begun again without having brought anything.
const TRIES_MAX: u32 = 40;
/// Before the next try.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// An entity's records, as they come.
pub(super) struct Records<'a> {
    client: &'a Client,
    key: EntityKey,
    pub(super) base: Base,
    pub(super) head: Head,
    after: u64,
    pages: Option<Streaming<RecordsPage>>,
    tries: u32,
}

impl<'a> Records<'a> {
    /// Begins with the first record that is kept.
    pub(super) async fn begin(client: &'a Client, key: EntityKey) -> Result<Self, Failure> {
        let mut records = Self {
            client,
            key,
            base: Base::default(),
            head: Head::default(),
            after: 0,
            pages: None,
            tries: 0,
        };
        let first = records.page().await?.unwrap_or_default();
        records.base = first.base.map(Base::from).unwrap_or_default();
        records.head = first.head.map(Head::from).unwrap_or_default();
        records.after = records.base.seq;
        Ok(records)
    }

    /// The next records; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Recorded>>, Failure> {
        while self.after < self.head.seq {
            let Some(page) = self.page().await? else {
                // It ended too early: there is more.
                self.pages = None;
                sleep(TRY_AGAIN_AFTER).await;
                continue;
            };
            let last = self.head.seq;
            // What has happened since is left alone.
            let records = page.records.into_iter().filter(|record| record.record <= last);
            let records: Result<Vec<_>, String> = records.map(|record| wire::recorded(&self.key, record)).collect();
            let records = records.map_err(|reason| Failure::no(format!("a record of {}: {reason}", self.key)))?;
            if let Some(last) = records.last() {
                self.after = last.seq;
                return Ok(Some(records));
            }
        }
        Ok(None)
    }

    async fn page(&mut self) -> Result<Option<RecordsPage>, Failure> {
        loop {
            match self.try_page().await {
                Ok(page) => {
                    self.tries = 0;
                    return Ok(page);
                }
                Err(status)
                    if matches!(
                        status.code(),
                        Code::InvalidArgument | Code::NotFound | Code::FailedPrecondition
                    ) =>
                {
                    return Err(Failure::no(refusal_text(&status)));
                }
                Err(status) => {
                    self.pages = None;
                    self.tries += 1;
                    if self.tries == TRIES_MAX {
                        let reason = refusal_text(&status);
                        return Err(Failure::unreachable(format!("{} cannot be read: {reason}", self.key)));
                    }
                    sleep(TRY_AGAIN_AFTER).await;
                }
            }
        }
    }

    async fn try_page(&mut self) -> Result<Option<RecordsPage>, Status> {
        let late = |_| Status::deadline_exceeded("the node stopped answering");
        if self.pages.is_none() {
            let mut history = HistoryClient::new(self.client.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let mut request = Request::new(RecordsRequest {
                key: self.key.to_string(),
                after_record: self.after,
                with_state: self.head.seq == 0,
            });
            self.client.tell_caller(request.metadata_mut());
            let pages = timeout(PAGE_TIMEOUT, history.records(request)).await.map_err(late)??;
            self.pages = Some(pages.into_inner());
        }
        let pages = self.pages.as_mut().expect("begun just now");
        timeout(PAGE_TIMEOUT, pages.message()).await.map_err(late)?
    }
}
