//! A machine that joins at the bare server.

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::hmac;
use berth_domain::identity::NodeIdentity;
use berth_domain::name::PoolName;
use berth_proto::join::v1;
use berth_proto::join::v1::join_service_client::JoinServiceClient;
use rcgen::KeyPair;
use tokio_stream::once;
use tonic::transport::Channel;

use super::{EXPORTED_BYTES, LABEL, said, secret};
use crate::machine::{Fleet, request_of, service};

/// Joins as machine `number`, from its own address, until it is Ready. Its authenticated
/// line stands as long as what is returned.
pub(crate) async fn join(fleet: &Fleet, number: usize) -> Result<JoinServiceClient<Channel>> {
    let (certificate, key) = enroll(fleet, number, &secret()).await.context("connection 1")?;
    let line = fleet.as_member(vec![certificate], &key, number).await.context("connection 2")?;
    let mut service = service(line).await.context("connection 2")?;
    let message = Some(v1::join_request::Message::Health(v1::Health::default()));
    let answers = service.join(once(v1::JoinRequest { message })).await.context("connection 2")?;
    let answer = answers.into_inner().message().await?.context("the server went away")?;
    ensure!(matches!(answer.message, Some(v1::join_response::Message::Ready(_))), "no Ready came");
    Ok(service)
}

/// Connection 1, until there is a certificate, DER.
pub(super) async fn enroll(fleet: &Fleet, number: usize, secret: &hmac::Key) -> Result<(Vec<u8>, KeyPair)> {
    let line = fleet.as_stranger(number).await?;
    let (_, connection) = line.get_ref();
    let exported =
        connection.export_keying_material([0; EXPORTED_BYTES], LABEL, None).context("the exporter")?;
    let key = KeyPair::generate().context("a key")?;
    let name = format!("bare-{number}").parse().context("a node's name")?;
    let request = request_of(&NodeIdentity { name, pool: PoolName::default() }, &key)?;
    let proof = hmac::sign(secret, &said(&exported, &request));
    let payload = [proof.as_ref(), &request].concat();
    let answers = service(line).await?.enroll(once(v1::EnrollRequest { payload })).await?;
    let answer = answers.into_inner().message().await?.context("the server went away")?;
    Ok((answer.payload, key))
}
