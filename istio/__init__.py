"""What this program knows of Istio itself: where its charts lie and which values they take."""
