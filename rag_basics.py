# %% [markdown]
"""
# Retrieval: how does a program answer from a pile of text?
"""

# %%
# Written from reading the chapters, before any retrieval code: chapter | section | question.
QUESTIONS = """
linear_models | Linear regression | Why should the normal equations not be solved directly?
linear_models | Ridge | What helps when two features nearly repeat each other?
linear_models | Ridge | Should the intercept be penalised?
linear_models | Lasso | Which penalty sets weights exactly to zero?
linear_models | Lasso | How do I know that coordinate descent has converged?
linear_models | Logistic regression | What happens to the weights when a line separates the classes?
linear_models | Softmax regression | Why is the softmax intercept only known up to a constant?
linear_models | Linear SVM | How wide is the margin of a support vector machine?
linear_models | Kernel SVM | Why must SMO move two variables at a time?
linear_models | Honest evaluation | Why is accuracy misleading when one class is rare?
linear_models | Honest evaluation | Which threshold is best if a miss costs more than a false alarm?
tree_models | A tree by hand | Do decision trees need scaled features?
tree_models | Classification and regression trees | How does a tree choose its best question?
tree_models | Classification and regression trees | Can a regression tree extrapolate a trend?
tree_models | Pruning | How do I cut back a tree that has grown too large?
tree_models | Random forest | What is an out-of-bag score?
tree_models | Random forest | Why does averaging many trees reduce the variance?
tree_models | Gradient boosting | Does boosting overfit with more trees?
tree_models | Second-order boosting | How does XGBoost treat missing values?
tree_models | Categorical features | Why does target encoding leak the answers?
tree_models | Importance | Why can a useless feature look important?
neural_networks | One neuron | How does the chain rule give the gradient of a single neuron?
neural_networks | Activations | Why is cross-entropy computed from logits and not probabilities?
neural_networks | Activations | What is a dead ReLU?
neural_networks | Layers | Why must the weights of a layer not start equal?
neural_networks | Gradient check | How can I test whether my gradient is right?
neural_networks | Autograd | What if a value is used twice in automatic differentiation?
neural_networks | Initialisation | Why do residual connections help deep networks?
neural_networks | Initialisation | How large should the first weights be with ReLU?
neural_networks | Normalisation | What does batch norm do at prediction time?
neural_networks | Normalisation | Why does dropout divide by 1 - p?
neural_networks | Convolution | Where does the gradient of max pooling go?
neural_networks | Training on digits | When should training stop early?
optimization | Gradient descent | How does bad conditioning slow down gradient descent?
optimization | Mini-batches | How does the noise of the gradient depend on the size of the batch?
optimization | Momentum | Why does momentum help in a ravine?
optimization | A step for every coordinate | Why does Adam correct its bias?
optimization | A step for every coordinate | What is the difference between Adam and AdamW?
optimization | Schedules | What is learning rate warm-up good for?
optimization | Schedules | When should gradients be clipped?
optimization | Newton | Why can Newton's method end in a saddle point?
optimization | Newton | What are the Wolfe conditions?
optimization | Data-parallel SGD | How do several machines share the work on one batch?
embeddings | Similarity | When do cosine and Euclidean distance rank alike?
embeddings | SVD | What is the best low-rank approximation of a matrix?
embeddings | PCA | Do the units of the features matter for principal components?
embeddings | TF-IDF | How can two words that never meet become similar?
embeddings | k-means | What happens to a cluster that loses all its points?
embeddings | t-SNE | Do the gaps between clusters on a t-SNE map mean anything?
embeddings | word2vec | Why do opposites get similar word vectors?
embeddings | Sentence embeddings | How does BERT read words that are not in its vocabulary?
embeddings | Contrastive loss | What are hard negatives?
sequence_models | Recurrent networks | Why do gradients vanish in a recurrent network?
sequence_models | Gates | How does an LSTM remember something for a long time?
sequence_models | Attention | Why are attention scores divided by the square root of d?
sequence_models | Attention | What does the causal mask do?
sequence_models | A tiny GPT | What does the temperature change when a model writes?
sequence_models | A tiny GPT | How does a key-value cache save work?
sequence_models | Tokens | How does byte-pair encoding choose what to merge?
sequence_models | Forecasting | Which baselines must a forecast beat?
sequence_models | Forecasting | Why is a random split wrong for a time series?
"""
# Nothing in the chapters answers these: a good program says so.
UNANSWERED = """
How long must an egg boil?
Who won the football world cup in 1998?
What is the capital of Australia?
How do I repair a flat bicycle tyre?
Which wine goes with fish?
What does a new passport cost?
When did the Roman empire fall?
How do birds find their way south?
"""
