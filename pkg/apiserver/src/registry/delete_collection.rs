//! Deleting many objects.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt, try_join_all};
use kube1_api::status::Status;

use super::{Endpoint, delete};
use crate::call::Call;
use crate::encode::Encoder;
use crate::http::respond::Reply;
use crate::negotiate::Answer;
use crate::options::{DeleteOptions, ListOptions};
use crate::storage::Object;

/// Deletions under way at once.
const PARALLEL: usize = 32;

impl Endpoint {
    /// DELETE of a collection; answers the list of what was selected.
    pub async fn delete_collection(&self, call: &mut Call) -> Result<Reply, Status> {
        let selection = ListOptions::parse(&call.query, false)?;
        let options = delete::read_options(call).await?;
        let encoder = Encoder::new(&self.row, call, Answer::List)?;
        let page = self.page(&selection).await?;
        for chunk in page.items.chunks(PARALLEL) {
            try_join_all(chunk.iter().map(|item| self.delete_one(call, &options, item))).await?;
        }
        self.answer_page(&encoder, page).await
    }

    fn delete_one<'a>(
        &'a self,
        call: &'a Call,
        options: &'a DeleteOptions,
        item: &Arc<Object>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let endpoint = Self {
            server: self.server.clone(),
            row: self.row.clone(),
            collection: self.collection.clone(),
            namespace: item.namespace().to_owned(),
            name: item.name().to_owned(),
        };
        async move {
            match endpoint.delete_object(call, options).await {
                // Somebody else was faster.
                Err(status) if status.code() == 404 => Ok(()),
                result => result.map(|_| ()),
            }
        }
        .boxed()
    }
}
