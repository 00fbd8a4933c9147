//! Listing collections.

use kube1_api::selector::FieldSelector;
use kube1_api::status::Status;

use super::Endpoint;
use crate::call::Call;
use crate::encode::{Encoder, ListHead};
use crate::http::respond::Reply;
use crate::negotiate::Answer;
use crate::options::ListOptions;
use crate::storage::ListPage;

impl Endpoint {
    /// GET of a collection.
    pub async fn list(&self, call: &Call) -> Result<Reply, Status> {
        let encoder = Encoder::new(&self.row, call, Answer::List)?;
        let options = ListOptions::parse(&call.query, false)?;
        if encoder.is_verbatim() && options.limit == 0 && options.continue_token.is_empty() {
            self.check_fields(&options.fields)?;
            return Ok(encoder.scanned(self.collection.scan(self.scope(), &options).await?));
        }
        let page = self.page(&options).await?;
        self.answer_page(&encoder, page).await
    }

    pub(super) async fn answer_page(&self, encoder: &Encoder, page: ListPage) -> Result<Reply, Status> {
        let head = head(&page);
        if self.row.conversion.is_some() {
            let values = page.items.iter().map(|item| item.value()).collect();
            return encoder.list_of(&head, self.all_shown(values).await?);
        }
        encoder.list(&head, page.items)
    }

    pub(super) async fn page(&self, options: &ListOptions) -> Result<ListPage, Status> {
        self.check_fields(&options.fields)?;
        if self.selects_converted(&options.fields) {
            return self.converted_page(options).await;
        }
        self.collection.list(self.scope(), options).await
    }

    /// The namespace to look into; `None` for all and for cluster-scoped resources.
    pub(super) fn scope(&self) -> Option<&str> {
        (!self.namespace.is_empty()).then_some(self.namespace.as_str())
    }

    /// 400 for fields that the resource's selectors do not offer.
    pub(super) fn check_fields(&self, fields: &FieldSelector) -> Result<(), Status> {
        let known = |field: &str| {
            matches!(field, "metadata.name" | "metadata.namespace")
                || self.row.selectable_fields.iter().any(|f| *f == field)
        };
        match fields.fields().find(|f| !known(f)) {
            None => Ok(()),
            Some(field) if self.row.is_custom() || !self.row.selectable_fields.is_empty() => {
                Err(Status::bad_request(format!("field label not supported: {field}")))
            }
            Some(field) => Err(Status::bad_request(format!(
                "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            ))),
        }
    }
}

fn head(page: &ListPage) -> ListHead {
    ListHead { revision: page.revision, continue_token: page.continue_token.clone(), remaining: page.remaining }
}
