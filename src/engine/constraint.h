// TokenConstraint: what a sequence may emit next (JSON mode, a JSON schema, a forced tool call). The engine knows only
// token ids and bits; text/ builds implementations from grammars. Called on the engine's thread, owned by its sequence.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

namespace spillway::engine {

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  // Sets bit (t % 64) of words[t / 64] for each token that may come next and clears all others. At least one is always
  // allowed; end-of-sequence tokens only where the output may end.
  virtual void allowed(std::span<uint64_t> words) = 0;

  // Takes the emitted token. The token was allowed.
  virtual void accept(int32_t token) = 0;

  // An independent copy in the same state (n > 1).
  virtual std::unique_ptr<TokenConstraint> clone() const = 0;
};

}  // namespace spillway::engine
