//! The contract of `Supplier`, on the double and on a real line.

use berth_domain::bundle::{CHUNK_BYTES, Signed, Wanted};
use berth_proto::join::v1::bundle_service_server::BundleService;
use berth_proto::{chunk_to_wire, describe_from_wire, signed_to_wire, wanted_from_wire};

use super::*;
use crate::ports::Supplier;
use crate::ports::doubles::MemorySupplier;

/// A server's service over a supplier in memory.
#[derive(Clone, Default)]
pub(super) struct Bundles(pub(super) MemorySupplier);

fn status(error: LineError) -> Status {
    match error {
        LineError::Refused(why) => refusal_to_status(&why),
        lost @ (LineError::Lost
        | LineError::Silent(_)
        | LineError::Malformed(_)
        | LineError::Foreign { .. }) => Status::unavailable(lost.to_string()),
    }
}

#[tonic::async_trait]
impl BundleService for Bundles {
    type FetchStream = Answers<v1::FetchResponse>;

    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        let wanted = describe_from_wire(request.get_ref()).expect("within bounds");
        self.0.describe(wanted).await.map(|signed| Response::new(signed_to_wire(signed))).map_err(status)
    }

    async fn fetch(&self, request: Request<v1::FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        let wanted = wanted_from_wire(request.get_ref()).expect("within bounds");
        let mut delivery = self.0.fetch(&wanted).await.map_err(status)?;
        let (out, answers) = mpsc::channel(4);
        tokio::spawn(async move {
            loop {
                match delivery.next().await {
                    Ok(Some(chunk)) => drop(out.send(Ok(chunk_to_wire(chunk))).await),
                    Ok(None) => return,
                    Err(error) => return drop(out.send(Err(status(error))).await),
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

fn blob() -> Vec<u8> {
    (0..300_000_u32).map(|n| n.to_le_bytes()[1]).collect()
}

/// A supplier that hands out what `holds` holds.
async fn keeps_the_contract(supplier: &dyn Supplier, holds: &MemorySupplier, ca: &Authority) {
    let blob = blob();
    let (signed, digest): (Signed, Digest) = (ca.bundle(&blob), Digest::of(&blob));
    let bundle = signed.digest();
    holds.hold(signed.clone(), [(digest, blob.clone())]);
    assert_eq!(supplier.describe(bundle).await.expect("held"), signed);
    let taken = async |offset: u64| {
        let mut delivery = supplier.fetch(&Wanted { bundle, blob: digest, offset }).await.expect("held");
        let mut all = Vec::new();
        loop {
            match delivery.next().await {
                Ok(Some(chunk)) => {
                    assert!((1..=CHUNK_BYTES).contains(&chunk.len()));
                    all.extend(chunk);
                }
                Ok(None) => return (all, true),
                Err(LineError::Lost) => return (all, false),
                Err(other) => panic!("{other}"),
            }
        }
    };
    for offset in [0, 1, 65_536, 299_999, 300_000] {
        let (got, ended) = taken(offset).await;
        assert!(ended && got == blob[usize::try_from(offset).expect("small")..], "from {offset}");
    }
    holds.cut_after(Some(2));
    let (got, ended) = taken(100).await;
    assert!(!ended && got == blob[100..100 + got.len()], "what came before the loss is good");
    holds.cut_after(None);
    for (bundle, blob) in [(Digest::of(b"another"), digest), (bundle, Digest::of(b"another"))] {
        let refused = async {
            let mut delivery = supplier.fetch(&Wanted { bundle, blob, offset: 0 }).await?;
            delivery.next().await.map(drop)
        };
        let LineError::Refused(why) = refused.await.expect_err("not held") else { panic!("refused") };
        assert_eq!(why.code(), Code::BundleMissing);
    }
    assert!(matches!(supplier.describe(Digest::of(b"another")).await, Err(LineError::Refused(_))));
}

#[tokio::test]
async fn the_double_and_the_line_keep_the_contract() {
    let ca = Authority::new("cluster");
    let double = MemorySupplier::default();
    keeps_the_contract(&double, &double, &ca).await;

    let bundles = Bundles::default();
    let line = serve_with(tls(&ca, true, &ca, b"h2"), bundles.clone()).await;
    let member = line.enter(&credential(&ca, &ca, wall(), SECOND * 60)).await.expect("a connection");
    keeps_the_contract(member.supplier(), &bundles.0, &ca).await;
}
