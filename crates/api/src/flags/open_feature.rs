//! The flags as an OpenFeature provider, for libraries that ask through that API. Handlers ask [`Flags`] itself: the client of
//! `open-feature` allocates five times for each evaluation, and takes some microseconds where this takes nanoseconds.
//!
//! In a build with the feature `open-feature`, which is off by default: release 0.3 of the crate does not compile without its own
//! default features, and with them `mockall` is part of the service.

use open_feature::{
    EvaluationContext, EvaluationError, EvaluationErrorCode, EvaluationReason, EvaluationResult,
    StructValue, async_trait,
    provider::{FeatureProvider, ProviderMetadata, ProviderStatus, ResolutionDetails},
};

use super::{
    Flags,
    list::Flag,
    state::{Reason, Standing},
};

/// See the module.
pub struct Provider {
    metadata: ProviderMetadata,
    flags: Flags,
}

impl Provider {
    pub fn new(flags: Flags) -> Self {
        Self {
            metadata: ProviderMetadata::new("holdfast"),
            flags,
        }
    }

    fn find(&self, key: &str) -> Result<Flag, EvaluationError> {
        Flag::named(key).ok_or_else(|| refused(EvaluationErrorCode::FlagNotFound))
    }

    /// Every flag is on or off, so no other type has a value.
    fn mismatch<T>(&self, key: &str) -> EvaluationResult<ResolutionDetails<T>> {
        self.find(key)?;
        Err(refused(EvaluationErrorCode::TypeMismatch))
    }
}

fn refused(code: EvaluationErrorCode) -> EvaluationError {
    EvaluationError {
        code,
        message: None,
    }
}

#[async_trait]
impl FeatureProvider for Provider {
    /// Ready from the start: what is not known yet has its default.
    fn status(&self) -> ProviderStatus {
        ProviderStatus::Ready
    }

    fn metadata(&self) -> &ProviderMetadata {
        &self.metadata
    }

    async fn resolve_bool_value(
        &self,
        key: &str,
        _: &EvaluationContext,
    ) -> EvaluationResult<ResolutionDetails<bool>> {
        let flag = self.find(key)?;
        let Standing { is_on, reason, .. } = self.flags.evaluate(flag);
        let reason = match reason {
            Reason::Default => EvaluationReason::Default,
            Reason::Static => EvaluationReason::Static,
            Reason::Cached => EvaluationReason::Cached,
            Reason::Error => EvaluationReason::Error,
            Reason::Brownout | Reason::Stale => EvaluationReason::Other(reason.as_str().to_owned()),
        };
        Ok(ResolutionDetails {
            value: is_on,
            variant: Some(if is_on { "on" } else { "off" }.to_owned()),
            reason: Some(reason),
            flag_metadata: None,
        })
    }

    async fn resolve_int_value(
        &self,
        key: &str,
        _: &EvaluationContext,
    ) -> EvaluationResult<ResolutionDetails<i64>> {
        self.mismatch(key)
    }

    async fn resolve_float_value(
        &self,
        key: &str,
        _: &EvaluationContext,
    ) -> EvaluationResult<ResolutionDetails<f64>> {
        self.mismatch(key)
    }

    async fn resolve_string_value(
        &self,
        key: &str,
        _: &EvaluationContext,
    ) -> EvaluationResult<ResolutionDetails<String>> {
        self.mismatch(key)
    }

    async fn resolve_struct_value(
        &self,
        key: &str,
        _: &EvaluationContext,
    ) -> EvaluationResult<ResolutionDetails<StructValue>> {
        self.mismatch(key)
    }
}

#[cfg(test)]
mod tests {
    use open_feature::OpenFeature;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::flags::Config;

    #[tokio::test]
    async fn a_library_that_asks_by_open_feature_gets_the_same_answer() {
        let flags = Flags::new(&Config::default(), None, &mut Registry::default());
        let mut api = OpenFeature::default();
        api.set_provider(Provider::new(flags.clone())).await;
        let client = api.create_client();

        for flag in Flag::ALL {
            let details = client.get_bool_details(flag.name(), None, None).await;
            let details = details.unwrap();
            assert_eq!(details.value, flags.is_on(flag));
            assert_eq!(details.reason, Some(EvaluationReason::Error), "never read");
        }
        let unknown = client.get_bool_value("unknown", None, None).await;
        let number = client.get_int_value("recommendations", None, None).await;
        assert_eq!(unknown.unwrap_err().code, EvaluationErrorCode::FlagNotFound);
        assert_eq!(number.unwrap_err().code, EvaluationErrorCode::TypeMismatch);
    }
}
