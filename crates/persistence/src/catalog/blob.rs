//! Files of repositories, by their digest: icons, and plugins' folders.

use chrono::{DateTime, Utc};
use diesel::sql_types::{Array, Bytea, Text, Timestamptz};
use diesel_async::RunQueryDsl;
use tidegate_model::BlobDigest;

use super::CatalogTx;
use crate::{Error, PlatformTx, Result, statement::statement};

/// A file to keep.
#[derive(Debug, Clone)]
pub struct NewBlob {
    /// SHA-256 of the content.
    pub digest: BlobDigest,
    /// `image/…` for icons, at most 256 KiB; else at most 16 MiB.
    pub media_type: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// A file.
#[derive(Debug, Clone)]
pub struct Blob {
    /// What it is.
    pub media_type: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// Keeps files, each once, in one statement. They stay for a while without anything that refers to them; entries and
/// versions do so from the same transaction on.
pub async fn put_blobs(tx: &mut PlatformTx, mut blobs: Vec<NewBlob>, now: DateTime<Utc>) -> Result<()> {
    // Two of one content are one row, and rows are locked in one order.
    blobs.sort_unstable_by_key(|blob| blob.digest);
    blobs.dedup_by_key(|blob| blob.digest);
    if blobs.is_empty() {
        return Ok(());
    }
    let (mut digests, mut types, mut contents) = (Vec::new(), Vec::new(), Vec::new());
    for blob in blobs {
        digests.push(blob.digest.as_bytes().to_vec());
        types.push(blob.media_type);
        contents.push(blob.content);
    }
    statement::<()>(
        "INSERT INTO catalog_blobs (digest, media_type, size, content, put_at)
         SELECT n.digest, n.media_type, octet_length(n.content), n.content, ?
         FROM unnest(?, ?, ?) AS n (digest, media_type, content) ORDER BY n.digest
         ON CONFLICT (digest) DO UPDATE SET put_at = GREATEST(catalog_blobs.put_at, excluded.put_at)",
    )
    .bind::<Timestamptz, _>(now)
    .bind::<Array<Bytea>, _>(digests)
    .bind::<Array<Text>, _>(types)
    .bind::<Array<Bytea>, _>(contents)
    .execute(tx.conn()?)
    .await?;
    Ok(())
}

/// A file; people are shown pictures alone, the platform everything.
pub async fn blob(tx: &mut impl CatalogTx, digest: BlobDigest) -> Result<Blob> {
    let rows: Vec<(String, Vec<u8>)> =
        statement::<(Text, Bytea)>("SELECT media_type, content FROM catalog_blobs WHERE digest = ?")
            .bind::<Bytea, _>(digest.as_bytes().to_vec())
            .load(tx.connected()?)
            .await?;
    rows.into_iter().next().map(|(media_type, content)| Blob { media_type, content }).ok_or(Error::NotFound)
}
