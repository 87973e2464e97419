//! Tokens for operators: made, listed, revoked.

use aws_lc_rs::rand;
use berth_domain::proof::Verifier;
use berth_domain::token::{JoinToken, MINT_ENTROPY, TokenId, TokenRecord};
use berth_proto::admin::v1::token_service_server::TokenService;
use berth_proto::admin::{new_token_from_wire, parse_field, v1};
use berth_proto::token_to_wire;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::operator::operator;
use super::{Desk, invalid, status};

#[tonic::async_trait]
impl TokenService for Desk {
    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let by = operator(&request)?;
        let asked = new_token_from_wire(request.into_inner()).map_err(invalid)?;
        let mut entropy = Zeroizing::new([0; MINT_ENTROPY]);
        rand::fill(&mut *entropy).map_err(|_| Status::internal("the system gives no randomness"))?;
        let token = JoinToken::mint(&entropy, *self.ca_pin.borrow());
        let now = self.clock.now();
        let record = TokenRecord {
            id: token.id.clone(),
            verifier: Verifier::of(&token),
            binding: asked.binding,
            description: asked.description,
            created: now,
            created_by: by,
            expires: now.after(asked.ttl),
            revoked: None,
            used: Vec::new(),
        };
        let shown = token_to_wire(&record);
        self.cluster.mint(record).await.map_err(status)?;
        Ok(Response::new(v1::CreateTokenResponse {
            token: token.to_text().to_string(),
            record: Some(shown),
            endpoint: self.endpoint.clone(),
        }))
    }

    async fn list_tokens(
        &self,
        _request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let tokens = self.cluster.tokens(self.clock.now()).await.map_err(status)?;
        let tokens = tokens.iter().take(MOST_TOKENS).map(token_to_wire).collect();
        Ok(Response::new(v1::ListTokensResponse { tokens }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let by = operator(&request)?;
        let id: TokenId = parse_field("id", &request.get_ref().id).map_err(invalid)?;
        if self.cluster.revoke(&id, &by, self.clock.now()).await.map_err(status)? {
            return Ok(Response::new(v1::RevokeTokenResponse {}));
        }
        Err(Status::not_found(format!(
            "there is no token {id}; berth-server token list shows those there are"
        )))
    }
}

/// The most tokens of one answer.
const MOST_TOKENS: usize = 10_000;
