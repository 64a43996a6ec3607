//! The operator of our NATS: made once for the platform, its seeds sealed with the master key.

use chrono::{DateTime, Utc};
use tidegate_broker::{AccountKey, Authority, OperatorKey, OperatorPublic, Seed, Trust};
use tidegate_persistence::{
    Operator, PlatformTx,
    nats_account::{self, NatsOperator},
};

use crate::{Core, Error, Result};

const IDENTITY: &[u8] = b"nats operator identity";
const SIGNING: &[u8] = b"nats operator signing";
const SYSTEM: &[u8] = b"nats system account";

/// The operator that is kept; without one, `offered` or a new one becomes it. Whoever comes first wins.
pub(super) async fn kept(core: &Core, offered: Option<Authority>) -> Result<Authority> {
    opened(core, &row(core, offered).await?)
}

/// What a server has to be told to trust the operator that is kept: the same bytes until its keys change, so that whoever
/// compares configurations sees what is new.
pub(super) async fn trust(core: &Core) -> Result<Trust> {
    let row = row(core, None).await?;
    Ok(opened(core, &row)?.trust(row.changed_at)?)
}

async fn row(core: &Core, offered: Option<Authority>) -> Result<NatsOperator> {
    let system = Operator::system();
    let found = core.db.in_platform(&system, async |tx| nats_account::operator(tx).await).await?;
    if let Some(row) = found {
        return Ok(row);
    }
    let new = sealed(core, &offered.unwrap_or_else(Authority::generate), core.clock.now())?;
    Ok(core.db.in_platform(&system, async |tx| nats_account::set_operator(tx, new.clone()).await).await?)
}

fn sealed(core: &Core, authority: &Authority, changed_at: DateTime<Utc>) -> Result<NatsOperator> {
    let seal = |place, seed: Seed| core.vault.seal(place, seed.expose().as_bytes());
    Ok(NatsOperator {
        identity_key: authority.identity().public().to_string(),
        signing_key: authority.signing().public().to_string(),
        system_key: authority.system().public().to_string(),
        identity_seed: seal(IDENTITY, authority.identity().seed()?)?,
        signing_seed: seal(SIGNING, authority.signing().seed()?)?,
        system_seed: seal(SYSTEM, authority.system().seed()?)?,
        retired_keys: Vec::new(),
        next: None,
        closed_at: None,
        changed_at,
    })
}

/// The operator as it signs in this transaction, and whether nobody is to store anything: no other key signs, and nothing is
/// closed or opened, before its end.
pub(super) async fn signing_in(core: &Core, tx: &mut PlatformTx) -> Result<(Authority, bool)> {
    let row = nats_account::operator_for_signing(tx).await?;
    Ok((opened(core, &row)?, row.closed_at.is_some()))
}

/// A signing key's seed, sealed as the operator's row keeps it.
pub(super) fn sealed_signing(core: &Core, key: &OperatorKey) -> Result<Vec<u8>> {
    core.vault.seal(SIGNING, key.seed()?.expose().as_bytes())
}

pub(super) fn opened(core: &Core, row: &NatsOperator) -> Result<Authority> {
    let open = |place, sealed| seed(core, place, sealed);
    let authority = Authority::new(
        OperatorKey::from_seed(&open(IDENTITY, &row.identity_seed)?)?,
        OperatorKey::from_seed(&open(SIGNING, &row.signing_seed)?)?,
        AccountKey::from_seed(&open(SYSTEM, &row.system_seed)?)?,
    );
    let next = row.next.iter().map(|(key, _)| key);
    let others: Vec<OperatorPublic> = row
        .retired_keys
        .iter()
        .chain(next)
        .map(|key| OperatorPublic::parse(key))
        .collect::<Result<_, _>>()?;
    Ok(authority.also_trusting(others))
}

/// A seed that was sealed for this place.
pub(super) fn seed(core: &Core, place: &[u8], sealed: &[u8]) -> Result<Seed> {
    let plain = core.vault.open(place, sealed)?;
    Ok(Seed::new(String::from_utf8(plain).map_err(Error::internal)?))
}
