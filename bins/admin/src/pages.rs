//! From pages to whole lists.

use tidegate_service::{Listed, Paging};

/// Rows that are listed at most: more fits neither memory nor anybody's eyes.
const MOST: usize = 100_000;

/// Every row, page by page.
pub(crate) async fn all<T>(
    list: impl AsyncFn(&Paging) -> tidegate_service::Result<Listed<T>>,
) -> anyhow::Result<Vec<T>> {
    let (mut found, mut paging) = (Vec::new(), Paging { limit: 100, cursor: None });
    loop {
        let page = list(&paging).await?;
        found.extend(page.items);
        paging.cursor = page.next_cursor;
        if paging.cursor.is_none() || found.len() >= MOST {
            return Ok(found);
        }
    }
}
